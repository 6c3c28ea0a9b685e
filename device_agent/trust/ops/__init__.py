"""The worker's operations on signed documents, one file each."""
