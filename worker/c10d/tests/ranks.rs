//! Collectives between real processes over Gloo, and what becomes of a rank whose peers fail.
//!
//! Each test starts its ranks with `Ranks::start`; what they do is the function of the same scenario
//! below. No port is fixed and no outcome hangs on a sleep.

#![expect(clippy::unwrap_used, reason = "a panic is how a rank and a test fail")]

mod support;

use std::hash::{DefaultHasher, Hash, Hasher};
use std::time::{Duration, Instant};

use c10d::{C10dError, ErrorKind, ProcessGroup, ReduceOp, Reducer, ReducerOptions, Store};
use support::{Me, Ranks, device, say, settled};
use tch::{Device, Kind, Tensor};

/// For scenarios in which nothing goes wrong.
const AMPLE: Duration = Duration::from_secs(60);

#[test]
#[ignore = "a process of the other tests"]
fn one_rank() {
    // Without a scenario it was started by hand, with `--include-ignored`.
    let Some(me) = Me::from_environment() else { return };
    let store = me.store();
    match me.scenario.as_str() {
        "values" => values(&me, &store),
        "training" => training(&me, &store),
        "different models" => different_models(&me, &store),
        "two attempts" => two_attempts(&me, &store),
        "lone" => tell(me.join(&store, "lone").map(|_| ())),
        "stuck peer" => stuck_peer(&me, &store),
        "killed in all-reduce" => killed_peer(&me, &store, in_all_reduce),
        "killed in backward" => killed_peer(&me, &store, in_backward),
        other => panic!("unknown scenario {other}"),
    }
}

/// Reports how an operation ended: kind, milliseconds are the test's to measure, full text.
fn tell(result: Result<(), C10dError>) {
    match result {
        Ok(()) => say(format_args!("ended well")),
        Err(error) => {
            let kind = match error.kind {
                ErrorKind::Timeout { .. } => "timeout",
                ErrorKind::PeerLost { .. } => "peer lost",
                _ => "another kind",
            };
            say(format_args!("ended with {kind}: {}", error.to_string().replace('\n', " ")));
        }
    }
}

fn floats(tensor: &Tensor) -> Vec<f32> {
    Vec::try_from(tensor.detach().to_device(Device::Cpu).flatten(0, -1)).unwrap()
}

// ---------------------------------------------------------------- values

#[test]
fn collectives_give_every_rank_the_combination_of_all() {
    for world_size in [3, 4] {
        Ranks::start("values", world_size, world_size, AMPLE).all_succeed();
    }
}

fn values(me: &Me, store: &Store) {
    let group = me.join(store, "a1").unwrap();
    assert_eq!(group.rank(), me.rank);
    let own = i64::try_from(me.rank.index()).unwrap();
    let world = i64::try_from(me.rank.world_size()).unwrap();
    // Of the factors 1, 2, …
    let (sum, each) = (world * (world + 1) / 2, [1.0_f32, 10.0, -100.0]);
    let times = |factor: f32| each.map(|value| value * factor);
    let mine =
        |kind| (Tensor::from_slice(&[1.0_f32, 10.0, -100.0]) * (own + 1)).to_kind(kind).to_device(device());

    for (op, expected) in [
        (ReduceOp::Sum, times(sum as f32)),
        (ReduceOp::Avg, times(sum as f32 / world as f32)),
        (ReduceOp::Max, [world as f32, 10.0 * world as f32, -100.0]),
    ] {
        for kind in [Kind::Float, Kind::Double] {
            let tensor = mine(kind);
            group.all_reduce(&tensor, op).unwrap();
            assert_eq!(floats(&tensor.to_kind(Kind::Float)), expected, "{op:?} of {kind:?}");
        }
    }
    let count = mine(Kind::Int64);
    group.all_reduce(&count, ReduceOp::Sum).unwrap();
    assert_eq!(Vec::<i64>::try_from(count.to_device(Device::Cpu)).unwrap(), [sum, 10 * sum, -100 * sum]);

    let scalar = Tensor::from(own).to_device(device());
    group.all_reduce(&scalar, ReduceOp::Max).unwrap();
    assert_eq!(scalar.int64_value(&[]), world - 1);

    let tensor = mine(Kind::Float);
    group.broadcast(&tensor, 1).unwrap();
    assert_eq!(floats(&tensor), [2.0, 20.0, -200.0]);

    // A parameter is a leaf that requires a gradient; it is overwritten all the same.
    let param = mine(Kind::Float).set_requires_grad(true);
    group.broadcast(&param, 2).unwrap();
    assert_eq!(floats(&param), [3.0, 30.0, -300.0]);
    assert!(param.is_leaf() && param.requires_grad());

    let gathered = group.all_gather(&mine(Kind::Float)).unwrap();
    let firsts: Vec<f32> = gathered.iter().map(|tensor| floats(tensor)[0]).collect();
    assert_eq!(firsts, (1..=world).map(|factor| factor as f32).collect::<Vec<_>>());
    group.barrier().unwrap();
}

// ---------------------------------------------------------------- training

#[test]
fn averaged_gradients_are_identical_on_two_ranks_and_equal_those_of_plain_all_reduce() {
    training_agrees(2);
}

#[test]
fn a_reducer_made_anew_in_the_middle_of_training_gives_the_gradients_of_one_that_was_kept() {
    // With three ranks, unlike two, the order of summation shows in the last bits.
    training_agrees(3);
    training_agrees(4);
}

/// Starts ranks that train with one reducer, with a second one from the middle on, and (two ranks only, where
/// rounding cannot differ) with plain all-reduce; compares the gradients and weights of all.
fn training_agrees(world_size: usize) {
    let mut ranks = Ranks::start("training", world_size, world_size, AMPLE);
    let ways = if world_size == 2 { vec!["kept", "anew", "plain"] } else { vec!["kept", "anew"] };
    let mut digests = Vec::new();
    for way in ways {
        for rank in 0..world_size {
            digests.push((way, rank, ranks.line(rank, &format!("digest {way}"))));
        }
    }
    let unaveraged = ranks.line(0, "digest alone");
    ranks.all_succeed();
    let (_, _, first) = &digests[0];
    assert!(digests.iter().all(|(_, _, digest)| digest == first), "not identical: {digests:?}");
    assert!(unaveraged != *first, "training alone gave the same weights, so nothing was averaged");
}

/// Layers of different size, so that small buckets hold one, several and a part of the parameters.
const WIDTHS: [i64; 5] = [8, 32, 32, 16, 4];

/// Small, so that even this model has several buckets.
const SMALL_BUCKETS: ReducerOptions = ReducerOptions { first_bucket_bytes: 256, bucket_bytes: 2048 };

const STEPS: usize = 8;

fn initial_params() -> Vec<Tensor> {
    tch::manual_seed(7);
    let normal = |shape: &[i64]| Tensor::randn(shape, (Kind::Float, device()));
    let layers = WIDTHS.windows(2);
    let params = layers.flat_map(|layer| [normal(&[layer[1], layer[0]]) * 0.2, normal(&[layer[1]]) * 0.2]);
    params.map(|param| param.set_requires_grad(true)).collect()
}

/// The loss of one rank at one step: every rank sees other data.
fn loss(params: &[Tensor], rank: usize, step: usize) -> Tensor {
    tch::manual_seed(i64::try_from(1000 * step + rank).unwrap());
    let batch = |width| Tensor::randn([16, width], (Kind::Float, device()));
    let (mut activation, target) = (batch(WIDTHS[0]), batch(WIDTHS[4]));
    for layer in params.chunks(2) {
        activation = activation.linear(&layer[0], Some(&layer[1])).tanh();
    }
    (activation - target).square().mean(Kind::Float)
}

/// Trains from the initial weights; `backward` is called with each step and its loss.
///
/// Returns a digest of the bits of every gradient on the way and of the last weights: a gradient that is rounded
/// differently is mostly lost again in the update of a much larger weight.
fn train(rank: usize, params: &[Tensor], mut backward: impl FnMut(usize, &Tensor)) -> u64 {
    let mut digest = DefaultHasher::new();
    let mut add = |tensor: &Tensor| {
        for value in floats(tensor) {
            value.to_bits().hash(&mut digest);
        }
    };
    for step in 0..STEPS {
        backward(step, &loss(params, rank, step));
        tch::no_grad(|| {
            for param in params {
                let mut gradient = param.grad();
                add(&gradient);
                let _ = param.shallow_clone().f_sub_(&(&gradient * 0.1)).unwrap();
                let _ = gradient.zero_();
            }
        });
    }
    params.iter().for_each(add);
    digest.finish()
}

fn training(me: &Me, store: &Store) {
    let rank = me.rank.index();
    let group = me.join(store, "a1").unwrap();
    let reducer_of = |group, params: &[Tensor]| Reducer::new(group, params, SMALL_BUCKETS).unwrap();

    let params = initial_params();
    let mut reducer = reducer_of(&group, &params);
    assert!(params.iter().all(|param| !param.grad().defined()), "a new reducer leaves no gradients");
    let kept = train(rank, &params, |_, loss| reducer.backward(loss).unwrap());
    say(format_args!("digest kept {kept}"));

    let params = initial_params();
    let mut reducer = Some(reducer_of(&group, &params));
    let anew = train(rank, &params, |step, loss| {
        if step == STEPS / 2 {
            reducer = None;
        }
        reducer.get_or_insert_with(|| reducer_of(&group, &params)).backward(loss).unwrap();
    });
    say(format_args!("digest anew {anew}"));

    let params = initial_params();
    let plain = train(rank, &params, |_, loss| {
        loss.backward();
        for param in &params {
            group.all_reduce(&param.grad(), ReduceOp::Avg).unwrap();
        }
    });
    say(format_args!("digest plain {plain}"));

    let params = initial_params();
    let mut reducer = reducer_of(&ProcessGroup::alone(), &params);
    let alone = train(rank, &params, |_, loss| reducer.backward(loss).unwrap());
    say(format_args!("digest alone {alone}"));
    group.barrier().unwrap();
}

#[test]
fn ranks_with_different_models_are_told_so_instead_of_waiting() {
    let mut ranks = Ranks::start("different models", 2, 2, AMPLE);
    for rank in 0..2 {
        let end = ranks.line(rank, "ended");
        assert!(end.contains(&format!("rank {rank} of 2: new reducer failed")), "{end}");
    }
    ranks.all_succeed();
}

fn different_models(me: &Me, store: &Store) {
    let group = me.join(store, "a1").unwrap();
    let width = 3 + i64::try_from(me.rank.index()).unwrap();
    let param = Tensor::zeros([width], (Kind::Float, device())).set_requires_grad(true);
    tell(Reducer::new(&group, &[param], ReducerOptions::default()).map(|_| ()));
}

#[test]
fn two_attempts_on_one_store_do_not_meet() {
    Ranks::start("two attempts", 2, 2, AMPLE).all_succeed();
}

/// The second group is joined while the keys of the first are still in the store.
fn two_attempts(me: &Me, store: &Store) {
    for attempt in ["a1", "a2"] {
        let group = me.join(store, attempt).unwrap();
        let one = Tensor::from(1_i64);
        group.all_reduce(&one, ReduceOp::Sum).unwrap();
        assert_eq!(one.int64_value(&[]), 2);
    }
}

// ---------------------------------------------------------------- failures

#[test]
fn a_peer_that_never_joins_is_a_timeout() {
    let timeout = Duration::from_secs(2);
    let start = Instant::now();
    let mut ranks = Ranks::start("lone", 2, 1, timeout);
    let end = ranks.line(0, "ended with timeout:");
    assert!(end.contains("rank 0 of 2: join process group failed"), "{end}");
    assert!(start.elapsed() >= timeout, "it gave up after {:?}", start.elapsed());
    ranks.all_succeed();
}

#[test]
fn a_peer_that_takes_no_part_is_a_timeout() {
    let timeout = Duration::from_secs(2);
    let start = Instant::now();
    let mut ranks = Ranks::start("stuck peer", 2, 2, timeout);
    let end = ranks.line(0, "ended with timeout:");
    assert!(end.contains("rank 0 of 2: barrier failed"), "{end}");
    assert!(start.elapsed() >= timeout, "it gave up after {:?}", start.elapsed());
}

fn stuck_peer(me: &Me, store: &Store) {
    let group = me.join(store, "a1").unwrap();
    if me.rank.index() == 0 {
        tell(group.barrier());
    } else {
        wait_to_be_killed();
    }
}

#[test]
fn a_peer_that_is_killed_ends_the_all_reduce_of_the_others_long_before_the_timeout() {
    killed_peer_is_noticed("killed in all-reduce", "all-reduce");
}

#[test]
fn a_peer_that_is_killed_ends_the_backward_of_the_others_long_before_the_timeout() {
    killed_peer_is_noticed("killed in backward", "backward");
}

fn killed_peer_is_noticed(scenario: &str, operation: &str) {
    let mut ranks = Ranks::start(scenario, 2, 2, AMPLE);
    ranks.line(1, "ready");
    ranks.line(0, "waiting");
    let start = Instant::now();
    ranks.kill(1);
    let end = ranks.line(0, "ended with peer lost:");
    // Of NCCL's it is told afterwards.
    let named = [operation, "an earlier collective"].map(|what| format!("rank 0 of 2: {what} failed"));
    assert!(named.iter().any(|named| end.contains(named)), "{end}");
    assert!(start.elapsed() < AMPLE / 2, "noticed after {:?} only", start.elapsed());
}

/// Rank 0 goes into `operation`, and rank 1 waits for its end instead.
fn killed_peer(me: &Me, store: &Store, operation: fn(&Me, &ProcessGroup)) {
    let group = me.join(store, "a1").unwrap();
    group.barrier().unwrap();
    operation(me, &group);
}

fn in_all_reduce(me: &Me, group: &ProcessGroup) {
    if me.rank.index() == 1 {
        say(format_args!("ready"));
        wait_to_be_killed();
    }
    say(format_args!("waiting"));
    let one = Tensor::from_slice(&[1.0_f32]).to_device(device());
    tell(group.all_reduce(&one, ReduceOp::Sum).and_then(|()| settled(group)));
}

fn in_backward(me: &Me, group: &ProcessGroup) {
    let params = initial_params();
    let mut reducer = Reducer::new(group, &params, SMALL_BUCKETS).unwrap();
    if me.rank.index() == 1 {
        say(format_args!("ready"));
        wait_to_be_killed();
    }
    say(format_args!("waiting"));
    tell(reducer.backward(&loss(&params, 0, 0)).and_then(|()| settled(group)));
}

fn wait_to_be_killed() -> ! {
    loop {
        std::thread::park();
    }
}

#[test]
fn a_store_that_nobody_hosts_is_a_timeout() {
    // Bound and dropped: nobody listens there now.
    let unused = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let rank = c10d::Rank::new(1, 2).unwrap();
    let error = Store::connect(rank, "127.0.0.1", unused, Duration::from_secs(1)).err().unwrap();
    assert!(matches!(error.kind, ErrorKind::Timeout { .. }), "{error}");
    assert!(error.to_string().starts_with("rank 1 of 2: connect to store failed"), "{error}");
}

#[test]
fn a_store_takes_a_free_port_on_one_address_and_refuses_a_taken_one() {
    let rank = c10d::Rank::alone();
    let store = Store::host(rank, "127.0.0.1:0".parse().unwrap(), AMPLE).unwrap();
    assert_ne!(store.port(), 0);
    let taken = format!("127.0.0.1:{}", store.port()).parse().unwrap();
    let error = Store::host(rank, taken, AMPLE).err().unwrap();
    assert!(matches!(error.kind, ErrorKind::Listen { address, .. } if address == taken), "{error}");
    let everywhere = Store::host(rank, "0.0.0.0:0".parse().unwrap(), AMPLE).err().unwrap();
    assert!(matches!(everywhere.kind, ErrorKind::InvalidArgument(_)), "{everywhere}");
    // The listener is bound to the loopback address alone.
    let elsewhere = std::net::TcpListener::bind(("127.0.0.2", store.port()));
    assert!(elsewhere.is_ok(), "the store listens on more than 127.0.0.1");
}
