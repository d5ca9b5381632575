"""The i-PI force protocol: messages and states without sockets, transports, and the force client."""
