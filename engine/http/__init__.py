"""HTTP: the engine's one listener, for the API, the webhooks and the probes.

`engine.http.server.HttpServer` is the listener, `engine.http.routes.ROUTES` all that it answers, and
`engine.http.operations.Operations` what it asks the engine for.
"""
