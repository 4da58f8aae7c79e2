from depthnet.data.layouts.official import LABELLED_FRAMES, TEST_FRAMES


def test_the_official_split_is_that_of_the_paper():
    assert len(TEST_FRAMES) == 654
    assert LABELLED_FRAMES - len(TEST_FRAMES) == 795
    assert max(TEST_FRAMES) < LABELLED_FRAMES
    # DenseDepth's archive begins with these test frames
    assert sorted(TEST_FRAMES)[:8] == [0, 1, 8, 13, 14, 15, 16, 17]


def test_it_is_the_published_lists(real_nyu):
    for name, expected in (("test", TEST_FRAMES), ("train", set(range(LABELLED_FRAMES)) - TEST_FRAMES)):
        lines = (real_nyu / f"official_{name}_frames.txt").read_text().splitlines()
        assert {int(line) for line in lines if line.strip().isdigit()} == set(expected)
