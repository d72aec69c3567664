# PyTorch, inside its image. Continues curator/harness.py; see there for what is known here.


def check_framework(expected):
    """PyTorch imports, and is the build that the label names."""
    import torch

    return {
        "version": torch.__version__.partition("+")[0],
        "cuda": torch.version.cuda,
        "runtime": cuda_runtime(),
        "cudnn": dotted_cudnn(torch.backends.cudnn.version()),
        "nccl": ".".join(str(part) for part in torch.cuda.nccl.version()),
        "sm": torch._C._cuda_getArchFlags() or "",
    }


def check_cuda_tensor(expected):
    """A small computation on the GPU, equal to plain Python's."""
    import torch

    values, left, right, product = tensor_reference()
    y = 2 * torch.arange(N, dtype=torch.float32, device="cuda") + 1
    require_equal("elementwise", [int(v) for v in y.tolist()], values)
    require_equal("sum", int(y.double().sum().item()), sum(values))
    a = torch.tensor(left, dtype=torch.float32, device="cuda")
    b = torch.tensor(right, dtype=torch.float32, device="cuda")
    c = a @ b
    require_equal("matmul", [[int(v) for v in row] for row in c.tolist()], product)
    return {"device": c.device.type, "gpu": torch.cuda.get_device_name(0)}


CHECKS["framework"] = (check_framework, False)
CHECKS["cuda_tensor"] = (check_cuda_tensor, True)
