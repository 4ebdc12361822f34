"""Metrics: what the agent counts and measures, and where Prometheus may read it.

`tally` takes note of each request while it is served: numbers in dicts, nothing else. `families`
makes Prometheus's samples of them, and of what the agent knows of itself, only when somebody asks.
`endpoint` answers who asks, over a Unix socket or loopback. docs/metrics.md lists every metric.

No sample holds a secret or a context. Labels take their values from the settings and from tables of
the code; what a caller made up counts as `other`.
"""
