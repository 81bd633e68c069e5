"""What embeddings are worth: labels told from neighbours or lines, retrieval, spread, place."""
