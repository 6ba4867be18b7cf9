"""Methods in which clients' models may differ, and knowledge travels in other forms."""
