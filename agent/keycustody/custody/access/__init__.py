"""Who may do what, until when and how often: grants, their counters, and cryptographic policy."""
