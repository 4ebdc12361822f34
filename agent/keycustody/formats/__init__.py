"""The formats of docs/format.md: bytes in, values out, no I/O and no keys kept.

Client and agent both stand on these modules; they import `keycustody.errors` and each other only.
"""
