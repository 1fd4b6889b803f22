//! Synthetic frames and detections, as varied as those of cameras in use.
//!
//! Fifty cameras of five frame rates, four sizes and two codecs record clips of about a minute whenever
//! something moves, through a week. Two more record around the clock, some frames a minute up to one a
//! second. Each frame has a time of its own camera's clock with jitter, a number that skips now and then, a
//! size by its place in the group of pictures and by the motion, and a processing time with a tail.
//! Brightness and motion wander from frame to frame under the sun of the day. Attributes hold what a camera
//! is set to, and an exposure that follows the light every second or two. Numbers have as many decimals as a
//! sender prints: 3 of the milliseconds, 2 of the brightness, 4 of the motion.
//!
//! A detector looks at each eighth frame of a clip, and finds up to eight objects that move through the
//! picture. Boxes jitter by some pixels and have three decimals, scores lie near 1 with a tail down to 0.5,
//! as in the detections of SORT's videos (of theirs, half are above 0.97 to 0.99 and a tenth below 0.68 to
//! 0.94, by video). Labels flip once in fifty.

use std::collections::BinaryHeap;
use std::f64::consts::TAU;

use super::random::{Random, decimals};

pub(crate) const CAMERAS: usize = 50;
/// Cameras beside them that record around the clock.
pub(crate) const ALWAYS: usize = 2;
/// Of all frames, those of each of these.
const SHARE_OF_ALWAYS: f64 = 0.06;
/// As long as rows live by default.
pub(crate) const DAYS: usize = 7;
const WEEK_SECONDS: f64 = 86_400.0 * DAYS as f64;
/// Frames between two looks of the detector.
const DETECTED_EACH: u64 = 8;

const SIZES: [(i32, i32); 4] = [(1280, 720), (1920, 1080), (2560, 1440), (3840, 2160)];
const RATES: [f64; 5] = [10.0, 12.5, 15.0, 25.0, 30.0];
const SITES: [&str; 5] = ["north", "south", "yard", "hall", "gate"];
const LENSES: [&str; 3] = ["wide", "standard", "tele"];
pub(crate) const LABELS: [&str; 8] = ["person", "person", "person", "car", "car", "bicycle", "truck", "dog"];

pub(crate) struct Frame {
    /// Microseconds since the Unix epoch.
    pub(crate) time: i64,
    pub(crate) camera: usize,
    pub(crate) id: i64,
    pub(crate) size: (i32, i32),
    pub(crate) codec: &'static str,
    pub(crate) fps: f64,
    pub(crate) key: bool,
    pub(crate) bytes: i64,
    pub(crate) processing_ms: f64,
    pub(crate) brightness: f64,
    pub(crate) motion: f64,
    pub(crate) attributes: String,
    pub(crate) detections: Vec<Detection>,
}

pub(crate) struct Detection {
    pub(crate) track: i64,
    pub(crate) label: &'static str,
    pub(crate) confidence: f64,
    pub(crate) bounds: [f64; 4],
}

pub(crate) fn camera_name(camera: usize) -> String {
    format!("cam-{camera:02}")
}

/// Something that moves through the picture.
struct Object {
    track: i64,
    label: &'static str,
    sure: f64,
    bounds: [f64; 4],
    speed: [f64; 2],
}

struct Camera {
    random: Random,
    number: usize,
    size: (i32, i32),
    codec: &'static str,
    fps: f64,
    always: bool,
    /// Frames from one key frame to the next.
    group: u64,
    /// Seconds since the start of the week.
    clock: f64,
    clips: u64,
    clip: u64,
    clip_seconds: f64,
    left_in_clip: u64,
    in_clip: u64,
    id: i64,
    light: f64,
    motion: f64,
    attributes: String,
    objects: Vec<Object>,
    tracks: i64,
}

impl Camera {
    fn new(number: usize, frames: f64) -> Self {
        let mut random = Random::new(number as u64 + 1);
        let fps = *random.one_of(&RATES);
        let seconds = frames / fps;
        let clips = (seconds / 60.0).round().max(1.0);
        Self {
            number,
            size: *random.one_of(&SIZES),
            codec: if random.happens(0.6) { "h265" } else { "h264" },
            fps,
            always: false,
            group: (fps * 2.0) as u64,
            clock: 0.0,
            clips: clips as u64,
            clip: 0,
            clip_seconds: seconds / clips,
            left_in_clip: 0,
            in_clip: 0,
            id: 1_000_000 * number as i64,
            light: 0.0,
            motion: 0.2,
            attributes: String::new(),
            objects: Vec::new(),
            tracks: 0,
            random,
        }
    }

    /// One that records around the clock: an hour is a clip.
    fn always(number: usize, frames: f64) -> Self {
        let fps = (SHARE_OF_ALWAYS * frames / WEEK_SECONDS).clamp(0.05, 1.0);
        let clips = 24 * DAYS as u64;
        Self { fps, always: true, group: 60, clips, clip_seconds: 3_600.0, ..Self::new(number, frames) }
    }

    /// Each clip begins somewhere in its own part of the week.
    fn next_clip(&mut self) -> bool {
        if self.clip == self.clips {
            return false;
        }
        let part = WEEK_SECONDS / self.clips as f64;
        let length = if self.always { part } else { self.clip_seconds * self.random.between(0.4, 1.6) };
        let room = (part - length).max(0.0);
        self.clock = self.clock.max(self.clip as f64 * part + self.random.share() * room);
        self.clip += 1;
        self.left_in_clip = (length * self.fps).max(1.0) as u64;
        self.in_clip = 0;
        self.motion = self.random.between(0.05, 0.6);
        self.objects.clear();
        for _ in 0..=self.random.index(5) {
            self.enter();
        }
        true
    }

    fn enter(&mut self) {
        let (width, height) = (f64::from(self.size.0), f64::from(self.size.1));
        self.tracks += 1;
        let tall = height * self.random.between(0.08, 0.4);
        let object = Object {
            track: self.tracks,
            label: self.random.one_of::<&str>(&LABELS),
            sure: 0.005 + 0.1 * self.random.share().powi(4),
            bounds: [
                self.random.share() * width * 0.9,
                self.random.share() * height * 0.6,
                tall * self.random.between(0.35, 1.2),
                tall,
            ],
            speed: [self.random.normal() * width / 300.0, self.random.normal() * height / 900.0],
        };
        self.objects.push(object);
    }

    fn detect(&mut self) -> Vec<Detection> {
        let (width, height) = (f64::from(self.size.0), f64::from(self.size.1));
        let random = &mut self.random;
        self.objects.retain(|object| (0.0..width).contains(&object.bounds[0]));
        let mut found = Vec::with_capacity(self.objects.len());
        for object in &mut self.objects {
            object.bounds[0] += object.speed[0];
            object.bounds[1] += object.speed[1];
            // Hidden behind something for once.
            if random.happens(0.08) {
                continue;
            }
            let jitter = height / 250.0;
            let bounds = object.bounds.map(|at| decimals((at + random.normal() * jitter).max(0.0), 3));
            let unsure = (object.sure * random.exponential()).min(0.5);
            let label = if random.happens(0.02) { *random.one_of(&LABELS) } else { object.label };
            found.push(Detection {
                track: object.track,
                label,
                confidence: decimals(1.0 - unsure, 6),
                bounds,
            });
        }
        if self.objects.len() < 8 && self.random.happens(0.03) {
            self.enter();
        }
        found
    }

    /// Sun and lamps, 0 to 255.
    fn daylight(&self) -> f64 {
        let hour = self.clock / 3_600.0 + self.number as f64 / 10.0;
        105.0 + 75.0 * ((hour - 13.0) / 24.0 * TAU).cos()
    }

    fn expose(&mut self, brightness: f64) {
        let night = brightness < 60.0;
        let gain = (30.0 - brightness / 9.0 + self.random.normal()).clamp(0.0, 48.0) as u32;
        let exposure = 1.0 / f64::from([30, 60, 120, 250, 500][((brightness / 52.0) as usize).min(4)]);
        self.attributes = format!(
            "{{\"site\": \"{}\", \"lens\": \"{}\", \"firmware\": \"4.2.{}\", \"exposure\": {exposure:.4}, \
             \"gain\": {gain}, \"night\": {night}, \"temperature\": {:.1}}}",
            SITES[self.number % SITES.len()],
            LENSES[self.number % LENSES.len()],
            self.number % 4,
            38.0 + brightness / 20.0 + 0.2 * self.random.normal(),
        );
    }

    fn frame(&mut self, start: i64) -> Option<Frame> {
        if self.left_in_clip == 0 && !self.next_clip() {
            return None;
        }
        let key = self.in_clip.is_multiple_of(self.group);
        // One frame in a thousand is dropped before it is numbered on the wire.
        self.id += if self.random.happens(0.001) { 2 } else { 1 };
        self.light = 0.98 * self.light + 0.4 * self.random.normal();
        self.motion = (0.97 * self.motion + 0.006 + 0.02 * self.random.normal()).clamp(0.0, 1.0);
        let brightness = (self.daylight() + self.light).clamp(0.0, 255.0);
        if self.in_clip.is_multiple_of(((self.fps * 1.5) as u64).max(1)) {
            self.expose(brightness);
        }
        let pixels = f64::from(self.size.0) * f64::from(self.size.1);
        let bits = if key { 0.35 } else { 0.02 + 0.09 * self.motion } * (1.0 + 0.15 * self.random.normal());
        let detections = if self.in_clip.is_multiple_of(DETECTED_EACH) { self.detect() } else { Vec::new() };
        let processing = 3.0 + pixels / 1e6 + 0.4 * self.random.exponential() + 0.5 * detections.len() as f64;
        let frame = Frame {
            time: start + ((self.clock + 0.000_3 * self.random.normal()) * 1e6) as i64,
            camera: self.number,
            id: self.id,
            size: self.size,
            codec: self.codec,
            fps: self.fps,
            key,
            bytes: (pixels * bits.max(0.01) / 8.0) as i64,
            processing_ms: decimals(processing, 3),
            brightness: decimals(brightness, 2),
            motion: decimals(self.motion, 4),
            attributes: self.attributes.clone(),
            detections,
        };
        self.clock += 1.0 / self.fps;
        self.left_in_clip -= 1;
        self.in_clip += 1;
        Some(frame)
    }
}

/// About `frames` frames in the order of their times; the week begins at `start`, in microseconds since the
/// Unix epoch.
pub(crate) struct Frames {
    start: i64,
    cameras: Vec<Camera>,
    /// The next frame of each camera that has one.
    next: BinaryHeap<Next>,
}

struct Next(Frame);

impl Ord for Next {
    /// The earliest is the greatest, which the heap gives first.
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        (other.0.time, other.0.camera).cmp(&(self.0.time, self.0.camera))
    }
}

impl PartialOrd for Next {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

impl PartialEq for Next {
    fn eq(&self, other: &Self) -> bool {
        self.cmp(other).is_eq()
    }
}

impl Eq for Next {}

impl Frames {
    pub(crate) fn new(frames: u64, start: i64) -> Self {
        let frames = frames as f64;
        let clips = frames * (1.0 - SHARE_OF_ALWAYS * ALWAYS as f64) / CAMERAS as f64;
        let mut cameras: Vec<Camera> = (0..CAMERAS).map(|number| Camera::new(number, clips)).collect();
        cameras.extend((CAMERAS..CAMERAS + ALWAYS).map(|number| Camera::always(number, frames)));
        let next = cameras.iter_mut().filter_map(|camera| camera.frame(start)).map(Next).collect();
        Self { start, cameras, next }
    }
}

impl Iterator for Frames {
    type Item = Frame;

    fn next(&mut self) -> Option<Frame> {
        let Next(frame) = self.next.pop()?;
        self.next.extend(self.cameras[frame.camera].frame(self.start).map(Next));
        Some(frame)
    }
}
