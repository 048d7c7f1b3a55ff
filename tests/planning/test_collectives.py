"""Collectives as compilers write them down; those of programs compiled here are in test_plan.py."""

from prompt_tuning.planning.collectives import Collective, collectives

LOOP = """HloModule jit_step, is_scheduled=true

%add (a: f32[], b: f32[]) -> f32[] {
  %a = f32[] parameter(0)
  %b = f32[] parameter(1)
  ROOT %sum = f32[] add(%a, %b)
}

%body (p: (s32[], f32[8,16])) -> (s32[], f32[8,16]) {
  %p = (s32[], f32[8,16]{1,0}) parameter(0)
  %x = f32[8,16]{1,0:T(8,128)S(1)} get-tuple-element(%p), index=1
  %r = f32[8,16]{1,0:T(8,128)} all-reduce(%x), channel_id=1, replica_groups=[2,4]<=[8], use_global_device_ids=true, to_apply=%add
  ROOT %t = (s32[], f32[8,16]{1,0}) tuple(%i, %r)
}

%condition (p.1: (s32[], f32[8,16])) -> pred[] {
  %p.1 = (s32[], f32[8,16]{1,0}) parameter(0)
  %limit = s32[]{:T(128)} constant(24)
  %i.1 = s32[] get-tuple-element(%p.1), index=0
  ROOT %less = pred[] compare(%i.1, %limit), direction=LT
}

ENTRY %main (x.1: f32[8,16]) -> f32[8,16] {
  %x.1 = f32[8,16]{1,0} parameter(0)
  %w = (s32[], f32[8,16]{1,0}) while(%start), condition=%condition, body=%body
  MORE
}
"""


def found(more, devices=8):
    return collectives(LOOP.replace("MORE", more), devices=devices)


def test_a_loop_counts_as_often_as_it_runs():
    size = 8 * 16 * 4
    assert found("") == {"all-reduce": Collective(24, 24 * size, 24 * 2 * size * 3 // 4)}
    known = LOOP.replace("body=%body", 'body=%body, backend_config={"known_trip_count":{"n":"5"}}')
    assert collectives(known, devices=8)["all-reduce"].count == 5


def test_pieces_of_one_collective_count_once():
    piece = "%g.{} = bf16[4,32]{{1,0}} all-gather(%y), channel_id=7, replica_groups={{{{0,1}},{{2,3}}}}, dimensions={{1}}"
    one = found(piece.format(1))["all-gather"]
    assert one == Collective(1, 4 * 32 * 2, 4 * 32)
    assert found("\n  ".join(piece.format(number) for number in range(3)))["all-gather"] == one


def test_a_beginning_shows_what_goes_in_and_what_comes_out():
    groups = "replica_groups=[2,4]<=[8]"
    gathered = found(f"%g = (f32[2,8]{{1,0}}, f32[8,8]{{1,0}}) all-gather-start(%y), channel_id=3, {groups}, dimensions={{0}}")
    assert gathered["all-gather"] == Collective(1, 8 * 8 * 4, 6 * 8 * 4)
    scattered = found(f"%s = f32[2,8]{{1,0}} reduce-scatter(%y), channel_id=4, {groups}, dimensions={{0}}, to_apply=%add")
    assert scattered["reduce-scatter"] == Collective(1, 8 * 8 * 4, 6 * 8 * 4)
    pairs = "source_target_pairs={{0,1},{1,0}}"
    moved = found(f"%c = (s8[64]{{0}}, s8[64]{{0}}, u32[], u32[]) collective-permute-start(%y), channel_id=5, {pairs}")
    assert moved["collective-permute"] == Collective(1, 64, 64)


def test_groups_may_be_named_by_axes_of_a_mesh():
    size = 8 * 8 * 4
    mesh = "replica_groups=mesh['a'=1,'b'=4,'c'=2], device_ids=([2,4]T(1,0)) {AXES}, to_apply=%add"
    for axes, group in (("'b'", 4), ("'b','c'", 8), ("'b':(1)2", 2)):
        line = f"%g = f32[8,8]{{1,0}} reduce-scatter(%y), channel_id=3, {mesh}".replace("{AXES}", "{" + axes + "}")
        assert found(line)["reduce-scatter"] == Collective(1, size * group, size * (group - 1))


def test_what_is_not_run_or_has_a_group_of_one_does_not_count():
    alone = "%g = f32[8,8]{1,0} all-reduce(%y), channel_id=3, replica_groups=[8,1]<=[8], to_apply=%add"
    assert found(alone)["all-reduce"].count == 24
    unused = LOOP.replace("body=%body", "body=%other").replace("MORE", "")
    assert collectives(unused, devices=8) == {}


def test_several_arrays_in_one_collective_count_together():
    both = "%g = (f32[8,8]{1,0}, pred[16]{0}, bf16[4]{0}) all-reduce(%y, %z), channel_id=3, replica_groups={}, to_apply=%add"
    held = 8 * 8 * 4 + 16 + 8
    assert found(both, devices=2)["all-reduce"] == Collective(1, held, held) + found("")["all-reduce"]
