"""Telemetry: throughput and MFU, metric rows on disk and on the terminal, the plot."""
