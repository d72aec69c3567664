"""The computation by the driver alone: no framework, no toolkit, kernels written as PTX.

Any image with a Python can run it. Where it fails on a host, no image can be blamed there.

Source of the instructions: PTX ISA 6.0, which every driver since R384 compiles.
"""

from __future__ import annotations

import ctypes
import struct
from typing import Any, Callable, Dict, List, Tuple

from curator.harness._driver import Driver
from curator.harness._numbers import ITEM_BYTES, flat
from curator.harness._tensor import Operations, use

PTX_HEAD = ".version 6.0\n.target sm_50\n.address_size 64\n"
BLOCK = 256
LOAD = {
    "fp32": "ld.global.f32 {f}, [{p}];",
    "fp16": "ld.global.b16 %h0, [{p}]; cvt.f32.f16 {f}, %h0;",
    "bf16": "ld.global.u16 %h0, [{p}]; cvt.u32.u16 %r9, %h0; shl.b32 %r9, %r9, 16;"
    " mov.b32 {f}, %r9;",
}
STORE = {
    "fp32": "st.global.f32 [{p}], {f};",
    "fp16": "cvt.rn.f16.f32 %h0, {f}; st.global.b16 [{p}], %h0;",
    # The numbers computed here are exact in bf16: dropping the low half drops zeros.
    "bf16": "mov.b32 %r9, {f}; shr.u32 %r9, %r9, 16; cvt.u16.u32 %h0, %r9;"
    " st.global.u16 [{p}], %h0;",
}
# Every kernel has the parameters (to, a, b, n) and finds its thread's number in %r1.
ENTRY = """
.visible .entry {name}(.param .u64 to, .param .u64 a, .param .u64 b, .param .u32 n) {{
.reg .pred %p<2>; .reg .b16 %h<2>; .reg .b32 %r<12>; .reg .b64 %d<10>; .reg .f32 %f<6>;
ld.param.u64 %d0, [to]; ld.param.u64 %d1, [a]; ld.param.u64 %d2, [b]; ld.param.u32 %r0, [n];
mov.u32 %r1, %ctaid.x; mov.u32 %r2, %ntid.x; mov.u32 %r3, %tid.x; mad.lo.u32 %r1, %r1, %r2, %r3;
setp.ge.u32 %p0, %r1, {limit}; @%p0 bra END;
{body}
END: ret;
}}
"""
AT = "mul.wide.u32 %d5, {index}, {size}; add.u64 {to}, {base}, %d5;"
EACH = "{at_a} {load} {work} {at_to} {store}"
SCALE = "mov.f32 %f1, 0f40000000; mov.f32 %f2, 0f3F800000; fma.rn.f32 %f0, %f0, %f1, %f2;"
EXP = "mul.f32 %f0, %f0, 0f3FB8AA3B; ex2.approx.f32 %f0, %f0;"
RANDOM = (
    "mul.lo.u32 %r4, %r1, 2654435769; shr.u32 %r4, %r4, 8; cvt.rn.f32.u32 %f0, %r4;"
    " mul.f32 %f0, %f0, 0f33800000;"
)
TOTAL = """mov.f32 %f1, 0f00000000; mov.u32 %r4, 0;
NEXT: {at} {load} add.f32 %f1, %f1, %f0; add.u32 %r4, %r4, 1;
setp.lt.u32 %p1, %r4, %r0; @%p1 bra NEXT; {store}"""
# Thread number = row * n + column of the result.
MATMUL = """div.u32 %r5, %r1, %r0; rem.u32 %r6, %r1, %r0; mul.lo.u32 %r7, %r5, %r0;
mov.f32 %f1, 0f00000000; mov.u32 %r4, 0; mov.u32 %r8, %r6;
NEXT: add.u32 %r10, %r7, %r4; {at_a} {load_a} {at_b} {load_b} fma.rn.f32 %f1, %f0, %f2, %f1;
add.u32 %r4, %r4, 1; add.u32 %r8, %r8, %r0; setp.lt.u32 %p1, %r4, %r0; @%p1 bra NEXT;
{at_to} {store}"""


def ptx() -> str:
    """Return the text of every kernel: one for each case and type."""
    kernels = [PTX_HEAD]
    for dtype, size in ITEM_BYTES.items():

        def at(index: str, base: str, to: str, size: int = size) -> str:
            return AT.format(index=index, size=size, base=base, to=to)

        def each(work: str, load: str, dtype: str = dtype) -> str:
            store = STORE[dtype].format(f="%f0", p="%d4")
            to = at("%r1", "%d0", "%d4")
            source = at("%r1", "%d1", "%d3")
            return EACH.format(at_a=source, load=load, work=work, at_to=to, store=store)

        load = LOAD[dtype].format(f="%f0", p="%d3")
        bodies = {
            "scale": each(SCALE, load),
            "exp": each(EXP, load),
            "random": each(RANDOM, ""),
            "total": TOTAL.format(
                at=at("%r4", "%d1", "%d3"), load=load, store=STORE[dtype].format(f="%f1", p="%d0")
            ),
            "matmul": MATMUL.format(
                at_a=at("%r10", "%d1", "%d3"),
                load_a=load,
                at_b=at("%r8", "%d2", "%d3"),
                load_b=LOAD[dtype].format(f="%f2", p="%d3"),
                at_to=at("%r1", "%d0", "%d4"),
                store=STORE[dtype].format(f="%f1", p="%d4"),
            ),
        }
        for name, body in bodies.items():
            limit = {"total": "1", "matmul": "%r11"}.get(name, "%r0")
            entry = ENTRY.format(name=f"{name}_{dtype}", limit=limit, body=body)
            squared = "mul.lo.u32 %r11, %r0, %r0;\nsetp.ge.u32"
            kernels.append(entry.replace("setp.ge.u32", squared, 1))
    return "".join(kernels)


class Buffer:
    """Bytes in the GPU's memory; freed with the process."""

    def __init__(self, driver: Driver, count: int, dtype: str, width: int = 0) -> None:
        self.count, self.dtype, self.width = count, dtype, width
        self.size = count * ITEM_BYTES[dtype]
        self.pointer = ctypes.c_uint64()
        driver.call("cuMemAlloc_v2", ctypes.byref(self.pointer), ctypes.c_size_t(self.size))


class Bare(Operations):
    """The operations as kernels that the driver compiles and starts."""

    dtypes = ("fp32", "fp16", "bf16")

    def __init__(self) -> None:
        self.driver = Driver()
        self._module = ctypes.c_void_p()
        self._kept: Dict[str, Buffer] = {}
        self.driver.call("cuModuleLoadData", ctypes.byref(self._module), ptx().encode())

    def _start(self, name: str, to: Buffer, threads: int, *sources: Buffer, n: int) -> Buffer:
        function = ctypes.c_void_p()
        text = f"{name}_{to.dtype}".encode()
        self.driver.call("cuModuleGetFunction", ctypes.byref(function), self._module, text)
        a, b = (*(source.pointer for source in sources), to.pointer, to.pointer)[:2]
        values = [to.pointer, a, b, ctypes.c_uint32(n)]
        pointers = (ctypes.c_void_p * 4)(*(ctypes.addressof(value) for value in values))
        blocks = -(-threads // BLOCK)
        shape = (blocks, 1, 1, BLOCK, 1, 1, 0)
        self.driver.call("cuLaunchKernel", function, *shape, None, pointers, None)
        return to

    def _like(self, x: Buffer, count: int = 0) -> Buffer:
        return Buffer(self.driver, count or x.count, x.dtype, x.width)

    def _kept_like(self, x: Buffer) -> Buffer:
        """Return the one buffer of this shape that results go to, so that timing allocates none."""
        name = f"{x.dtype} {x.count}"
        if name not in self._kept:
            self._kept[name] = self._like(x)
        return self._kept[name]

    def put(self, numbers: List[Any], dtype: str) -> Buffer:
        values = flat(numbers)
        width = len(numbers[0]) if isinstance(numbers[0], list) else 0
        if dtype == "bf16":
            data = b"".join(struct.pack("<f", value)[2:] for value in values)
        else:
            data = struct.pack(f"<{len(values)}{'f' if dtype == 'fp32' else 'e'}", *values)
        made = Buffer(self.driver, len(values), dtype, width)
        self.driver.call("cuMemcpyHtoD_v2", made.pointer, data, ctypes.c_size_t(len(data)))
        return made

    def random(self, shape: Tuple[int, ...], dtype: str) -> Buffer:
        count = shape[0] * (shape[1] if shape[1:] else 1)
        made = Buffer(self.driver, count, dtype, shape[-1])
        return self._start("random", made, count, n=count)

    def scale(self, x: Buffer) -> Buffer:
        return self._start("scale", self._like(x), x.count, x, n=x.count)

    def exp(self, x: Buffer) -> Buffer:
        return self._start("exp", self._like(x), x.count, x, n=x.count)

    def total(self, x: Buffer) -> Buffer:
        return self._start("total", self._like(x, 1), 1, x, n=x.count)

    def matmul(self, a: Buffer, b: Buffer) -> Buffer:
        return self._start("matmul", self._kept_like(a), a.count, a, b, n=a.width)

    def copy(self, x: Buffer) -> Buffer:
        to, size = self._kept_like(x), ctypes.c_size_t(x.size)
        self.driver.call("cuMemcpyDtoD_v2", to.pointer, x.pointer, size)
        return to

    def address(self, array: Buffer) -> int:
        return array.pointer.value

    def timed(self, function: Callable[[], Any]) -> float:
        start, end, ms = ctypes.c_void_p(), ctypes.c_void_p(), ctypes.c_float()
        for event in (start, end):
            self.driver.call("cuEventCreate", ctypes.byref(event), 0)
        self.driver.call("cuEventRecord", start, None)
        function()
        self.driver.call("cuEventRecord", end, None)
        self.driver.call("cuEventSynchronize", end)
        self.driver.call("cuEventElapsedTime", ctypes.byref(ms), start, end)
        return ms.value


use(Bare)
