"""What api.py is made of: access, parameters, answers, the stream, /metrics, the admin socket."""
