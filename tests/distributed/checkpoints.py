"""Checkpoints of a pooled run as Ray Train keeps them, without Ray."""

import json
from pathlib import Path

RUN = "20240102-030405-abcd"


def keep(storage: Path, *, epochs: int, run_id: str = RUN) -> Path:
    """The checkpoints of a run's last two epochs as Ray Train keeps them, and a third that a kill left half."""
    folder = storage / run_id
    results = []
    for epoch in (epochs - 1, epochs):
        name = f"checkpoint_2024-01-02_03-04-{epoch:02}.1"
        (folder / name / "deeper").mkdir(parents=True)
        (folder / name / "state.pt").write_bytes(bytes([epoch]) * 1000)
        (folder / name / "deeper" / "more").write_bytes(b"")
        results.append({"checkpoint_dir_name": name, "metrics": {"epoch": epoch}})
    (folder / "checkpoint_half").mkdir()
    (folder / "checkpoint_half" / "state.pt").write_bytes(b"half")
    snapshot = {"checkpoint_results": results, "latest_checkpoint_result": results[-1]}
    (folder / "checkpoint_manager_snapshot.json").write_text(json.dumps(snapshot), encoding="utf-8")
    return folder
