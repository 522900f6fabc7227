from geco_experiments.runtime.words import counted, named, ranging


def test_a_number_agrees_with_its_noun():
    assert [counted(number, "run") for number in (0, 1, 2)] == ["0 runs", "1 run", "2 runs"]
    assert counted(1, "study", "studies") == "1 study"
    assert counted(3, "study", "studies") == "3 studies"


def test_a_range_over_one_is_none():
    assert ranging(1, "seed") == "One seed."
    assert ranging(3, "seed", what="Mean and range") == "Mean and range over 3 seeds."
    assert ranging(2, "sample of each", "samples of each") == "Range over 2 samples of each."


def test_those_left_out_are_named():
    assert named("not", []) == ""
    assert named("not", ["a", "b"]) == " (not: a, b)"
