"""What every service starts with: settings, logs, migrations, an HTTP server. A leaf: imports nothing of ours."""
