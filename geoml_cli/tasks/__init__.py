"""What is learnt: targets, defaults and how outputs become an artifact."""
