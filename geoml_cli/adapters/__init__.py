"""Small trainable additions to an encoder."""
