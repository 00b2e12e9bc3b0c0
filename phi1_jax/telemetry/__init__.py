"""Telemetry: speed and MFU, goodput, metric rows on disk and terminal, the plot."""
