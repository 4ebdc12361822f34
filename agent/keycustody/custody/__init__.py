"""The domain: what may be done with keys, by whom, and the record of it.

`identity` says who shows a certificate, `access` decides what they may do, `keys` knows which
versions can be believed, `operation` ties a decision to its record, `signing`, `agreement` and
`session_keys` are the use cases, `lifecycle` plans and does what changes the token, `audit` keeps
the journal. No gRPC and no PKCS#11 here: requests come as plain values, tokens as
`keycustody.token.api.Token`.
"""
