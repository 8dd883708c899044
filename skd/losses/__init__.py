"""The interface of a loss term, and the methods that consist of terms."""
