"""For those who add a rule: its skeleton, and the contract that every method keeps."""
