"""Worker processes: clients that train in forks of this process, one in each at a time.

`app.py` stands in for the client app on the server's side, `serving.py` is the worker's side,
`channel.py` what goes between them, `fork_server.py` where workers come from.
"""
