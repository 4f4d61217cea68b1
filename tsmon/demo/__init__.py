"""The simulated tailnet: a scriptable sidecar and LocalAPI, for the demo, tests and benchmarks."""
