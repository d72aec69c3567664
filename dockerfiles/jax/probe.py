# JAX, inside its image. Continues curator/harness.py; see there for what is known here.


def check_framework(expected):
    """JAX and its CUDA plugin import, and load the CUDA that the label names."""
    import importlib

    import jax
    import jaxlib

    major = expected["cuda"].split(".")[0]
    versions = importlib.import_module("jax_cuda%s_plugin._versions" % major)
    return {
        "version": jax.__version__,
        "jaxlib": jaxlib.__version__,
        "cuda": dotted(versions.cuda_runtime_get_version()),
        "built": dotted(versions.cuda_runtime_build_version()),
        "cudnn": dotted_cudnn(versions.cudnn_get_version()),
    }


def check_cuda_tensor(expected):
    """A small computation on the GPU, equal to plain Python's; JAX must not fall back to the CPU."""
    import os

    os.environ["JAX_PLATFORMS"] = "cuda"
    os.environ["XLA_PYTHON_CLIENT_PREALLOCATE"] = "false"
    import jax
    import jax.numpy as jnp

    values, left, right, product = tensor_reference()
    y = jax.jit(lambda x: 2 * x + 1)(jnp.arange(N, dtype=jnp.float32))
    require_equal("elementwise", [int(v) for v in y.tolist()], values)
    require_equal("sum", int(jnp.sum(y.astype(jnp.int32))), sum(values))
    a, b = jnp.array(left, dtype=jnp.float32), jnp.array(right, dtype=jnp.float32)
    c = jnp.matmul(a, b, precision=jax.lax.Precision.HIGHEST)
    require_equal("matmul", [[int(v) for v in row] for row in c.tolist()], product)
    device = next(iter(c.devices()))
    return {"device": "cuda" if device.platform in ("gpu", "cuda") else device.platform,
            "gpu": device.device_kind}


CHECKS["framework"] = (check_framework, False)
CHECKS["cuda_tensor"] = (check_cuda_tensor, True)
