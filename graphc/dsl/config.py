"""What TensorFlow 1 scripts pass to configure sessions and runs.

Owns the records and their field names.  Must not know what is done with them: thread counts are honoured, the rest is
accepted, because it speaks of machines that are not here.
Invariant: an unknown field is an error, so that a misspelt option is noticed.
"""
from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar


class Record:
    """A record with fixed fields and defaults; nested records exist at once, so `a.b.c = 1` works."""

    _fields: ClassVar[Mapping[str, Any]] = {}

    def __init__(self, **values: Any) -> None:
        for name, default in self._fields.items():
            object.__setattr__(self, name, default() if callable(default) else default)
        for name, value in values.items():
            setattr(self, name, value)

    def __setattr__(self, name: str, value: Any) -> None:
        if name not in self._fields:
            raise ValueError(f"{type(self).__name__} has no field {name!r}; it has {', '.join(self._fields)}")
        object.__setattr__(self, name, value)

    def __eq__(self, other: object) -> bool:
        return type(self) is type(other) and vars(self) == vars(other)

    __hash__ = None  # type: ignore[assignment]

    def __repr__(self) -> str:
        return f"{type(self).__name__}({', '.join(f'{k}={v!r}' for k, v in vars(self).items())})"


class GPUOptions(Record):
    """Accepted and without effect.  Source: tf.GPUOptions."""

    _fields: ClassVar[Mapping[str, Any]] = {
        "per_process_gpu_memory_fraction": 0.0, "allow_growth": False, "allocator_type": "",
        "deferred_deletion_bytes": 0, "visible_device_list": "", "polling_active_delay_usecs": 0,
        "polling_inactive_delay_msecs": 0, "force_gpu_compatible": False, "experimental": dict
    }


class OptimizerOptions(Record):
    """Accepted and without effect.  Source: tf.OptimizerOptions."""

    L0, L1 = -1, 0
    OFF, ON_1, ON_2 = -1, 1, 2
    _fields: ClassVar[Mapping[str, Any]] = {
        "do_common_subexpression_elimination": True, "do_constant_folding": True, "do_function_inlining": True,
        "opt_level": 0, "global_jit_level": 0, "max_folded_constant_in_bytes": 0
    }


class GraphOptions(Record):
    """Accepted and without effect.  Source: tf.GraphOptions."""

    _fields: ClassVar[Mapping[str, Any]] = {
        "enable_recv_scheduling": False, "optimizer_options": OptimizerOptions, "build_cost_model": 0,
        "build_cost_model_after": 0, "infer_shapes": False, "place_pruned_graph": False,
        "enable_bfloat16_sendrecv": False, "timeline_step": 0, "rewrite_options": None
    }


class ConfigProto(Record):
    """intra_op_parallelism_threads: threads of a run (0: all CPUs this process may use); the rest is accepted.

    Source: tf.ConfigProto.
    """

    _fields: ClassVar[Mapping[str, Any]] = {
        "device_count": dict, "intra_op_parallelism_threads": 0, "inter_op_parallelism_threads": 0,
        "use_per_session_threads": False, "session_inter_op_thread_pool": list, "placement_period": 0,
        "device_filters": list, "gpu_options": GPUOptions, "allow_soft_placement": False,
        "log_device_placement": False, "graph_options": GraphOptions, "operation_timeout_in_ms": 0,
        "rpc_options": None, "cluster_def": None, "isolate_session_state": False, "experimental": dict
    }


class RunOptions(Record):
    """Accepted and without effect.  Source: tf.RunOptions."""

    NO_TRACE, SOFTWARE_TRACE, HARDWARE_TRACE, FULL_TRACE = 0, 1, 2, 3
    _fields: ClassVar[Mapping[str, Any]] = {
        "trace_level": 0, "timeout_in_ms": 0, "inter_op_thread_pool": 0, "output_partition_graphs": False,
        "debug_options": None, "report_tensor_allocations_upon_oom": False, "experimental": None
    }


class RunMetadata(Record):
    """Accepted; nothing is recorded in it.  Source: tf.RunMetadata."""

    _fields: ClassVar[Mapping[str, Any]] = {
        "step_stats": None, "cost_graph": None, "partition_graphs": list, "function_graphs": list
    }
