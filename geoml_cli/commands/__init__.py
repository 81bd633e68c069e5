"""How a user spells each verb: one file a verb, nothing heavy above the body."""
