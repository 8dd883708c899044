"""Which code made a number, and whether it is today's. Only `again` and `here` import torch."""
