"""The contract of a loss term, and what makes a method of terms."""
