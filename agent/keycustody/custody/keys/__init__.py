"""Keys and their versions: what is on the token, and what of it is believed."""
