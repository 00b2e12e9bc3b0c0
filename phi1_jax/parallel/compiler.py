"""What the compiler is told, by platform."""

_OPTIONS: dict[str, dict[str, str | bool]] = {
  "tpu": {
    # By default a product with a gathered matrix is cut into one product per device,
    # each of which reads and writes its whole result once more: on v5e-8 phi-1's step
    # moved 981 GiB through each chip's memory; with whole gathers, 417 (LOG.md).
    "xla_jf_spmd_threshold_for_windowed_einsum_mib": "1000000",
  },
}


def options(platform: str) -> dict[str, str | bool]:
  """Compiler options for `jax.Device.platform`."""
  return dict(_OPTIONS.get(platform, {}))
