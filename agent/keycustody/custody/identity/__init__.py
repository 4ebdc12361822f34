"""Who shows a certificate: trust, judgement at each call, and the files behind both."""
