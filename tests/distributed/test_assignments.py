"""The state machine that hands out assets: every rule about leases, without Ray."""

from pathlib import Path

import pytest

from b3dist.distributed.assignments import MAX_FRUITLESS_RESTARTS, Assignments, WorkerId


def open_run(path: Path, *tickers: str) -> Assignments:
    """An opened invocation over some tickers; their folders go to path/assets."""
    (path / "assets").mkdir(exist_ok=True)
    assignments = Assignments(tickers, ledger_path=path / "ledger.jsonl", assets_dir=path / "assets")
    assignments.open(pid=1, host="here")
    return assignments


def worker(attempt: int, rank: int = 0) -> WorkerId:
    """A worker of an attempt."""
    return WorkerId(attempt, rank, 1000 + rank, "here")


def write_bundle(path: Path, ticker: str) -> None:
    """What a worker leaves when it commits an asset."""
    (path / "assets" / ticker).mkdir()


def states(assignments: Assignments) -> dict[str, str]:
    """Every asset's state."""
    return {ticker: asset.state for ticker, asset in assignments.assets.items()}


def test_assets_are_leased_once_each_in_the_given_order(tmp_path: Path) -> None:
    """Two workers share the assets; when none is left each gets None."""
    run = open_run(tmp_path, "AAAA3", "BBBB3", "CCCC3")
    first, second = worker(run.begin_attempt(2), 0), worker(run.attempt, 1)
    assert [run.lease(first), run.lease(second), run.lease(first), run.lease(second)] == [
        "AAAA3",
        "BBBB3",
        "CCCC3",
        None,
    ]


def test_settled_assets_keep_what_was_reported(tmp_path: Path) -> None:
    """Trained, skipped and their details survive a replay of the ledger."""
    run = open_run(tmp_path, "AAAA3", "BBBB3")
    me = worker(run.begin_attempt(1))
    for _ in range(2):
        ticker = run.lease(me)
        assert ticker is not None
        if ticker == "AAAA3":
            write_bundle(tmp_path, ticker)
            assert run.record_trained(me, ticker, {"windows_trained": 7})
        else:
            assert run.record_skipped(me, ticker, "too short")
    run.close()
    again = Assignments(("AAAA3", "BBBB3"), ledger_path=tmp_path / "ledger.jsonl", assets_dir=tmp_path / "assets")
    assert states(again) == {"AAAA3": "trained", "BBBB3": "skipped"}
    assert again.assets["AAAA3"].detail["windows_trained"] == 7
    assert again.assets["BBBB3"].detail["reason"] == "too short"


def test_error_is_retried_once_then_recorded(tmp_path: Path) -> None:
    """The second exception of an asset is its last, and the others go on."""
    run = open_run(tmp_path, "AAAA3", "BBBB3")
    me = worker(run.begin_attempt(1))
    for message in ("first", "second"):
        assert run.lease(me) == "AAAA3"
        run.record_error(me, "AAAA3", message)
    assert run.assets["AAAA3"].state == "failed"
    assert run.assets["AAAA3"].detail["error"] == "second"
    assert run.lease(me) == "BBBB3"


def test_restart_requeues_without_charge_and_takes_written_folders_as_done(tmp_path: Path) -> None:
    """A new group trains again only what has no folder, and bystanders are not charged."""
    run = open_run(tmp_path, "AAAA3", "BBBB3", "CCCC3")
    attempt = run.begin_attempt(3)
    for rank in range(3):
        run.lease(worker(attempt, rank))
    run.charge({0: "killed"})
    write_bundle(tmp_path, "BBBB3")  # rank 1 finishes between the death and the end of its group
    run.begin_attempt(3)
    assert states(run) == {"AAAA3": "waiting", "BBBB3": "trained", "CCCC3": "waiting"}
    assert [asset.charges for asset in run.assets.values()] == [1, 0, 0]


def test_bystander_may_report_until_the_new_group_registers(tmp_path: Path) -> None:
    """Its lease is not given away while it may still write; afterwards its messages are ignored."""
    run = open_run(tmp_path, "AAAA3", "BBBB3")
    attempt = run.begin_attempt(2)
    dead, bystander = worker(attempt, 0), worker(attempt, 1)
    run.lease(dead)
    run.lease(bystander)
    run.charge({0: "killed"})
    assert run.lease(bystander) is None
    assert run.assets["AAAA3"].state == "leased"
    write_bundle(tmp_path, "BBBB3")
    assert run.record_trained(bystander, "BBBB3", {})
    renewed = worker(run.begin_attempt(2))
    assert run.lease(renewed) == "AAAA3"
    assert not run.record_trained(dead, "AAAA3", {})
    assert not run.record_error(dead, "AAAA3", "late")
    assert run.lease(dead) is None
    assert run.assets["AAAA3"].lease == renewed


def test_asset_that_takes_down_two_workers_is_quarantined(tmp_path: Path) -> None:
    """Two charged attempts; one death reported at several polls is one charge."""
    run = open_run(tmp_path, "AAAA3", "BBBB3")
    for _ in range(2):
        me = worker(run.begin_attempt(1))
        assert run.lease(me) == "AAAA3"
        run.charge({0: "killed by signal 9"})
        run.charge({0: "killed by signal 9"})
    me = worker(run.begin_attempt(1))
    assert run.assets["AAAA3"].state == "failed"
    assert run.assets["AAAA3"].detail["kind"] == "quarantined"
    assert "2 times" in run.assets["AAAA3"].detail["error"]
    assert run.lease(me) == "BBBB3"


def test_charges_for_ranks_without_a_lease_do_nothing(tmp_path: Path) -> None:
    """A worker that dies idle harms no asset."""
    run = open_run(tmp_path, "AAAA3")
    run.begin_attempt(2)
    run.lease(worker(1, 0))
    run.charge({1: "killed"})
    assert run.assets["AAAA3"].charges == 0


def test_workers_give_up_after_restarts_without_a_finished_asset(tmp_path: Path) -> None:
    """Five restarts in a row that finish nothing stop the run; a finished asset in between starts the count again."""
    run = open_run(tmp_path, "AAAA3", "BBBB3")
    me = worker(run.begin_attempt(1))
    for _ in range(MAX_FRUITLESS_RESTARTS - 1):
        me = worker(run.begin_attempt(1))
    ticker = run.lease(me)
    assert ticker == "AAAA3"
    write_bundle(tmp_path, ticker)
    run.record_trained(me, ticker, {})
    for _ in range(MAX_FRUITLESS_RESTARTS):
        me = worker(run.begin_attempt(1))
        assert run.stopped is None
        assert run.lease(me) == "BBBB3"
    me = worker(run.begin_attempt(1))
    assert run.stopped is not None
    assert "5 times" in run.stopped
    assert run.lease(me) is None


def test_resume_trains_only_what_is_missing(tmp_path: Path) -> None:
    """After a driver died: trained and skipped stay, failed and leased wait again, a written folder counts."""
    run = open_run(tmp_path, "AAAA3", "BBBB3", "CCCC3", "DDDD3", "EEEE3")
    me = worker(run.begin_attempt(1))
    write_bundle(tmp_path, run.lease(me) or "")
    run.record_trained(me, "AAAA3", {})
    run.lease(me)
    run.record_skipped(me, "BBBB3", "constant")
    for _ in range(2):
        run.lease(me)
        run.record_error(me, "CCCC3", "broken")
    run.lease(me)
    write_bundle(tmp_path, "DDDD3")  # written, not yet reported when the driver was killed
    run.lease(worker(1, 1))
    run.close()
    again = open_run(tmp_path, "AAAA3", "BBBB3", "CCCC3", "DDDD3", "EEEE3")
    assert states(again) == {
        "AAAA3": "trained",
        "BBBB3": "skipped",
        "CCCC3": "waiting",
        "DDDD3": "trained",
        "EEEE3": "waiting",
    }
    assert again.invocation == 2
    assert again.count("trained", invocation=2) == 0
    assert worker(again.begin_attempt(1)).attempt == 2


def test_resume_trains_an_asset_again_whose_folder_was_deleted(tmp_path: Path) -> None:
    """What counts is the disk, not what the ledger once said."""
    run = open_run(tmp_path, "AAAA3")
    me = worker(run.begin_attempt(1))
    write_bundle(tmp_path, run.lease(me) or "")
    run.record_trained(me, "AAAA3", {})
    run.close()
    (tmp_path / "assets" / "AAAA3").rmdir()
    assert states(open_run(tmp_path, "AAAA3")) == {"AAAA3": "waiting"}


@pytest.mark.parametrize("cut", range(1, 14))
def test_crash_after_any_event_loses_and_doubles_nothing(tmp_path: Path, cut: int) -> None:
    """Whatever prefix of the ledger is on the disk, resuming ends with every asset settled exactly once."""
    tickers = ("AAAA3", "BBBB3", "CCCC3")
    run = open_run(tmp_path, *tickers)
    me = worker(run.begin_attempt(1))
    while (ticker := run.lease(me)) is not None:
        if ticker == "BBBB3":
            run.record_error(me, ticker, "broken")
        else:
            write_bundle(tmp_path, ticker)
            run.record_trained(me, ticker, {})
    run.close()
    ledger = tmp_path / "ledger.jsonl"
    lines = ledger.read_bytes().splitlines(keepends=True)
    ledger.write_bytes(b"".join(lines[:cut]))
    again = open_run(tmp_path, *tickers)
    me = worker(again.begin_attempt(1))
    written = []
    while (ticker := again.lease(me)) is not None:
        write_bundle(tmp_path, ticker)  # raises if the asset already has its bundle
        again.record_trained(me, ticker, {})
        written.append(ticker)
    assert states(again)["AAAA3"] == states(again)["CCCC3"] == "trained"
    assert states(again)["BBBB3"] in ("trained", "failed")
    assert "AAAA3" not in written


def test_stop_hands_out_nothing_more(tmp_path: Path) -> None:
    """A stopped run settles what is in flight and leases nothing."""
    run = open_run(tmp_path, "AAAA3", "BBBB3")
    me = worker(run.begin_attempt(1))
    run.lease(me)
    run.stop("the lake was changed")
    write_bundle(tmp_path, "AAAA3")
    assert run.record_trained(me, "AAAA3", {})
    assert run.lease(me) is None


def test_packs_are_a_fair_share_of_what_waits(tmp_path: Path) -> None:
    """Two workers take what they can, but neither more than half of what is not settled."""
    run = open_run(tmp_path, *(f"AAA{number}" for number in range(10)))
    attempt = run.begin_attempt(2)
    assert [len(run.lease_pack(worker(attempt, rank), most)) for rank, most in ((0, 100), (1, 3), (1, 3), (1, 3))] == [
        5,
        3,
        2,
        0,
    ]
    assert all(asset.leases == 1 for asset in run.assets.values())


def test_suspects_are_leased_alone(tmp_path: Path) -> None:
    """A pack whose worker died is tried asset by asset, and only the one that kills again is quarantined."""
    run = open_run(tmp_path, *(f"AAA{number}" for number in range(6)))
    me = worker(run.begin_attempt(1))
    assert run.lease_pack(me, 3) == ["AAA0", "AAA1", "AAA2"]
    run.charge({0: "killed"})
    me = worker(run.begin_attempt(1))
    assert run.lease_pack(me, 3) == ["AAA0"]
    write_bundle(tmp_path, "AAA0")
    run.record_trained(me, "AAA0", {})
    assert run.lease_pack(me, 3) == ["AAA1"]
    run.charge({0: "killed"})
    me = worker(run.begin_attempt(1))
    assert run.lease_pack(me, 3) == ["AAA2"]
    assert run.lease_pack(me, 3) == ["AAA3", "AAA4", "AAA5"]
    assert states(run)["AAA1"] == "failed"
    assert run.assets["AAA1"].detail["kind"] == "quarantined"


def test_an_error_in_a_pack_is_retried_alone(tmp_path: Path) -> None:
    """Assets of a pack that raised wait again and come back one at a time."""
    run = open_run(tmp_path, "AAAA3", "BBBB3", "CCCC3")
    me = worker(run.begin_attempt(1))
    assert run.lease_pack(me, 2) == ["AAAA3", "BBBB3"]
    run.record_error(me, "AAAA3", "broken")
    run.record_error(me, "BBBB3", "broken")
    assert [run.lease_pack(me, 2) for _ in range(3)] == [["AAAA3"], ["BBBB3"], ["CCCC3"]]
