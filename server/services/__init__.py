"""The server's use cases. They know the ports, not the adapters behind them."""
