"""gRPC: listeners, who is calling, and handlers that only translate.

A request passes `dispatch` (parse, deadline, errors to status), a handler of `handlers` (message to
plain values and back), and one use case of `keycustody.custody`. Nothing here decides.
"""
