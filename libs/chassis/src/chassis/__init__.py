"""What every service stands on: errors, settings, logging, telemetry, messaging, rpc, health and the process itself."""
