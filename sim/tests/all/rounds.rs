//! Scenario SC-10: three nodes, twenty rounds of edits apart, random pairs that meet; in the end all is one.

use sealtide_ibgib::{Address, Relations, Stamp, TimelineId, Verified, evolve, genesis, winner};
use sealtide_identity::SpaceId;
use sealtide_sim::cluster::Cluster;
use sealtide_sim::dice::Dice;
use sealtide_sim::model::Model;
use sealtide_sim::seeds::{in_virtual_time, only_seed, scale};
use sealtide_sync::SpaceView;
use serde_json::json;

const NODES: usize = 3;
const ROUNDS: u64 = 20;
const TIMELINES: usize = 4;
/// Seeds at scale 1.
const SEEDS: u64 = 60;

/// The tips of a timeline at a node.
fn tips(cluster: &Cluster, node: usize, space: &SpaceId, timeline: &TimelineId) -> Vec<Verified> {
    let view = cluster.engine(node).store().view(space).unwrap();
    view.tips(timeline).iter().filter_map(|tip| view.record(&tip.sid)).collect()
}

fn words(frame: &Verified) -> Vec<String> {
    let data = frame.object().unwrap();
    data["text"].as_str().unwrap().split(' ').map(str::to_owned).collect()
}

/// The next frame: one word more in the text, one mark more in the list, another related frame.
fn edit(dice: &mut Dice, prev: &Verified, mark: &str, other: &Address, stamp: Stamp) -> Verified {
    let mut data = prev.object().unwrap();
    data.shift_remove("graft");
    let mut text = words(prev);
    text.insert(dice.below(text.len() as u64 + 1) as usize, mark.to_owned());
    data.insert("text".to_owned(), json!(text.join(" ")));
    data["marks"].as_array_mut().unwrap().push(json!(mark));
    data.insert(format!("field {}", dice.below(3)), json!(mark));
    evolve(prev, data, Relations::from([("to".to_owned(), vec![other.clone()])]), stamp)
}

async fn meet(cluster: &Cluster, from: usize, to: usize) -> Result<(), String> {
    let sessions = cluster.connect(from, to).ok_or("a node is down")?;
    cluster.settle(120_000).await?;
    sessions.iter().for_each(sealtide_node::world::PeerSession::close);
    Ok(())
}

/// Returns how many edits were made and how many merge frames there are.
async fn play(seed: u64) -> Result<(usize, usize), String> {
    let mut dice = Dice::new(seed);
    let cluster = Cluster::new(NODES, dice.word(), false);
    let space = cluster.space(dice.word());
    let mut clock_ms = 1_767_225_600_000;
    let mut model = Model::default();
    let known = |node: usize| cluster.engine(node).store().view(&space).unwrap();
    model.made(
        &sealtide_sim::world::members(cluster.engine(0).store(), &space)
            .iter()
            .filter_map(|sid| known(0).record(sid))
            .collect::<Vec<_>>(),
    );
    let first = |number: usize| {
        let data = json!({"text": "one two three four five six", "marks": [], "number": number});
        genesis(
            "note",
            data.as_object().unwrap().clone(),
            Relations::new(),
            Stamp { ms: clock_ms },
            &format!("{number:064x}"),
        )
    };
    let firsts: Vec<Verified> = (0..TIMELINES).map(first).collect();
    let timelines: Vec<TimelineId> = firsts.iter().map(|first| first.frame().unwrap().timeline).collect();
    model.made(&firsts);
    cluster.engine(0).commit_local(space, firsts).await.map_err(|error| error.to_string())?;
    meet(&cluster, 0, 1).await?;
    meet(&cluster, 1, 2).await?;

    let mut marks = vec![Vec::new(); TIMELINES];
    for round in 0..ROUNDS {
        for node in 0..NODES {
            for line in 0..TIMELINES {
                for _ in 0..dice.below(4) {
                    // A clock that others are ahead of now and then.
                    clock_ms += dice.below(3);
                    let found = tips(&cluster, node, &space, &timelines[line]);
                    let prev = winner(&found).unwrap();
                    let other = tips(&cluster, node, &space, &timelines[(line + 1) % TIMELINES]);
                    let mark = format!("r{round}n{node}t{line}m{}", marks[line].len());
                    let frame = edit(&mut dice, prev, &mark, winner(&other).unwrap().address(), Stamp { ms: clock_ms });
                    model.made(std::slice::from_ref(&frame));
                    model.acknowledged(std::slice::from_ref(&frame));
                    cluster.engine(node).commit_local(space, vec![frame]).await.map_err(|error| error.to_string())?;
                    marks[line].push(mark);
                }
            }
        }
        for _ in 0..dice.below(3) {
            let from = dice.below(NODES as u64) as usize;
            meet(&cluster, from, (from + 1 + dice.below(2) as usize) % NODES).await?;
        }
    }
    for turn in 0..2 * NODES {
        meet(&cluster, turn % NODES, (turn + 1) % NODES).await?;
    }

    cluster.check_agreement(&space)?;
    let mut made = 0;
    for (line, timeline) in timelines.iter().enumerate() {
        let found = tips(&cluster, 0, &space, timeline);
        let [tip] = &found[..] else { return Err(format!("timeline {line} has {} tips", found.len())) };
        let data = tip.object().unwrap();
        let (listed, text) = (data["marks"].as_array().unwrap(), words(tip));
        for mark in &marks[line] {
            let times = listed.iter().filter(|found| **found == json!(mark)).count();
            if times != 1 || !text.contains(mark) {
                return Err(format!("{mark} is {times} times in the list, in the text: {}", text.contains(mark)));
            }
        }
        made += marks[line].len();
    }
    for node in &cluster.nodes {
        model.check(node.engine().unwrap().store(), &space).map_err(|what| format!("{}: {what}", node.name()))?;
    }
    cluster.verify()?;
    let members = sealtide_sim::world::members(cluster.engine(0).store(), &space).len();
    Ok((made, members - made - TIMELINES - 1))
}

/// Proves: SY-36, SY-61
#[test]
fn sc10_three_nodes_and_many_rounds() {
    let (mut edits, mut merges, mut count) = (0, 0, 0);
    let seeds = only_seed().map_or(0..SEEDS * scale(), |seed| seed..seed + 1);
    for seed in seeds {
        let (made, merged) = in_virtual_time(play(seed)).unwrap_or_else(|what| panic!("seed {seed}: {what}"));
        (edits, merges, count) = (edits + made, merges + merged, count + 1);
    }
    println!("{count} seeds: {edits} edits, {merges} merge frames");
    assert!(merges > 10 * count, "they do diverge");
}
