"""Generated from proto/keycustody/v1 by `make proto`: not to be edited."""
