"""systemd as the agent uses it: through systemctl and journalctl, started when something is asked and not before."""
