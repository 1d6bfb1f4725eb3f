"""The Serve endpoint: one deployment that holds a release and a lake resident and answers HTTP."""
