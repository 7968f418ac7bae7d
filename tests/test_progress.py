"""Progress with an estimate, in a log and in a terminal."""

import io

import pytest

from keras_pspnet import progress


@pytest.fixture
def seconds(monkeypatch):
    """A clock that the test sets."""
    now = [0.0]
    monkeypatch.setattr(progress.time, "monotonic", lambda: now[0])
    return now


def lines(capsys):
    return capsys.readouterr().out.splitlines()


def test_the_estimate_follows_from_the_steps_since_the_first(seconds, capsys):
    meter = progress.Meter("step", 10)
    seconds[0] = 50.0  # the first step also builds and traces
    meter.advance()
    seconds[0] = 70.0
    meter.advance("loss 1", steps=2)
    assert lines(capsys)[-1].split() == ["step", "3/10", "loss", "1", "1:10", "left"]


def test_dear_steps_count_for_more(seconds, capsys):
    meter = progress.Meter("step", 10, cost=lambda step: step + max(step - 5, 0))
    meter.advance()
    seconds[0] = 20.0
    meter.advance(steps=2)  # 10 s a step; 2 more like it, then 5 at twice the cost
    assert lines(capsys)[-1].split() == ["step", "3/10", "2:00", "left"]


def test_a_resumed_count_goes_on(seconds, capsys):
    meter = progress.Meter("step", 100, done=50)
    meter.advance()
    seconds[0] = 30.0
    meter.advance(steps=3)
    assert lines(capsys)[-1].split() == ["step", "54/100", "7:40", "left"]


def test_what_is_tracked_comes_out_and_is_said_once_in_a_while(seconds, capsys):
    def items():
        for number in range(4):
            seconds[0] += 6.0
            yield number

    assert list(progress.track(items(), "reading", 4)) == [0, 1, 2, 3]
    assert [line.split()[:2] for line in lines(capsys)] == [["reading", "2/4"]]


def test_a_terminal_shows_a_bar_by_cost_and_its_estimate(seconds, monkeypatch):
    class Terminal(io.StringIO):
        isatty = lambda self: True  # noqa: E731

    terminal = Terminal()
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setattr(progress.sys, "stdout", terminal)
    meter = progress.Meter("step", 10, done=1, cost=lambda step: step + max(step - 5, 0))
    meter.advance()
    seconds[0] = 20.0
    meter.advance("loss 1", steps=2)  # 10 s a step; 1 more like it, then 5 at twice the cost
    meter.say("[saved]")
    meter.close()
    shown = terminal.getvalue()
    assert "1/10" in shown and "[saved]" in shown
    last = shown[shown.rindex("step") :]
    assert "4/10  loss 1" in last and "0:01:50" in last
    assert meter.bar.tasks[0].percentage == pytest.approx(100 * 4 / 15)


@pytest.mark.parametrize("value, text", [(5, "0:05"), (75.4, "1:15"), (3725, "1:02:05")])
def test_a_clock(value, text):
    assert progress.clock(value) == text
