"""The control app: all that the public port serves and that is not inference, in a process of its own."""

# Unix sockets in a deployment's run directory.
GATEWAY_SOCKET = "gateway.sock"  # the gateway's admin routes
CONTROL_SOCKET = "control.sock"  # the control app
