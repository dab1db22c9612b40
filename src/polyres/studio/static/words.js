// Every word of the studio and of exported pages, in English and Chinese. What the server says comes as it is.

import { speaker } from "./language.js";

const EN = {
  language: "English",
  drop_here: "Drop songs here",
  limits: "up to {size} MiB and {minutes} minutes each",
  choose_songs: "Choose songs",
  folder: "Folder",
  model_first: "Model for new songs",
  footer: "Songs stay with this studio, and are removed when nobody has used them for a while.",
  keys: "Space plays, 1–9 switch results, ← → move, [ and ] set the loop.",
  page_keys: "Space plays, 1–9 switch results, ← → move, [ and ] set the loop; or drag over a picture.",
  separate: "Separate",
  reconstruct: "Reconstruct",
  sending: "Sending {name}: {percent} %",
  unreachable: "The studio cannot be reached; is it still running?",
  not_sent: "{name} could not be sent; is the studio still running?",
  not_taken: "{name} was not taken ({status})",
  too_large: "{name} is larger than {size} MiB",
  no_songs: "No songs in there.",
  model_for: "Model for {name}",
  add_result: "Add result",
  remove: "Remove {name}",
  dismiss: "Dismiss",
  cancel: "Cancel",
  progress_of: "{label} of {name}",
  before_it: "{count} before it",
  waiting: "waiting",
  starting: "starting",
  seconds_left: "about {count} s left",
  minutes_left: "about {count} min left",
  loading: "Loading the sounds…",
  no_sound: "This result cannot be played here: {reason}",
  no_song: "This song cannot be played here: {reason}",
  mix: "Mix (wav)",
  mix_loop: "Mix of the loop (wav)",
  all_stems: "All stems (zip)",
  all_versions: "All versions (zip)",
  play: "Play",
  pause: "Pause",
  to_start: "To the start",
  end_loop: "End loop",
  loop_hint: "Drag over a picture to loop",
  position: "Position",
  results: "Results",
  solo: "Solo",
  mute: "Mute",
  hear: "Hear",
  solo_of: "Solo {stem}",
  mute_of: "Mute {stem}",
  hear_of: "Hear {stem}",
  level: "Level",
  pan: "Pan",
  level_of: "Level of {stem}",
  pan_of: "Pan of {stem}",
  off: "off",
  left: "L {percent}",
  right: "R {percent}",
  middle: "mid",
  picture_of: "{stem} of {label}: waveform and spectrogram",
  sdr: "SDR {value} dB",
  sdr_hint: "Signal-to-distortion ratio of this excerpt to the true stem; more is nearer",
  truth: "reference",
  stem_drums: "drums",
  stem_bass: "bass",
  stem_other: "other",
  stem_vocals: "vocals",
  stem_guitar: "guitar",
  stem_piano: "piano",
  stem_original: "original",
  stem_mixture: "mixture",
  stem_codec: "codec",
  stem_enhanced: "enhanced",
  stem_difference: "difference",
};

const ZH = {
  language: "中文",
  drop_here: "把歌曲拖到这里",
  limits: "每首最大 {size} MiB，最长 {minutes} 分钟",
  choose_songs: "选择歌曲",
  folder: "文件夹",
  model_first: "新歌曲使用的模型",
  footer: "歌曲只保存在本工作室中，一段时间无人使用后即被删除。",
  keys: "空格键播放，数字键 1–9 切换结果，← → 移动，[ 和 ] 设置循环。",
  page_keys: "空格键播放，数字键 1–9 切换结果，← → 移动，[ 和 ] 设置循环，也可在图上拖动。",
  separate: "分离",
  reconstruct: "重建",
  sending: "正在发送 {name}：{percent} %",
  unreachable: "无法连接工作室，它还在运行吗？",
  not_sent: "{name} 发送失败，工作室还在运行吗？",
  not_taken: "{name} 未被接收（{status}）",
  too_large: "{name} 超过 {size} MiB",
  no_songs: "其中没有歌曲。",
  model_for: "{name} 使用的模型",
  add_result: "添加结果",
  remove: "移除 {name}",
  dismiss: "关闭",
  cancel: "取消",
  progress_of: "{name}：{label}",
  before_it: "前面还有 {count} 个",
  waiting: "等待中",
  starting: "正在开始",
  seconds_left: "大约还需 {count} 秒",
  minutes_left: "大约还需 {count} 分钟",
  loading: "正在加载声音…",
  no_sound: "此结果无法在这里播放：{reason}",
  no_song: "这首歌曲无法在这里播放：{reason}",
  mix: "混音 (wav)",
  mix_loop: "循环部分的混音 (wav)",
  all_stems: "全部声部 (zip)",
  all_versions: "全部版本 (zip)",
  play: "播放",
  pause: "暂停",
  to_start: "回到开头",
  end_loop: "结束循环",
  loop_hint: "在图上拖动可循环播放",
  position: "位置",
  results: "结果",
  solo: "独奏",
  mute: "静音",
  hear: "试听",
  solo_of: "独奏 {stem}",
  mute_of: "静音 {stem}",
  hear_of: "试听 {stem}",
  level: "音量",
  pan: "声像",
  level_of: "{stem} 的音量",
  pan_of: "{stem} 的声像",
  off: "关",
  left: "左 {percent}",
  right: "右 {percent}",
  middle: "中",
  picture_of: "{label} 的{stem}：波形和频谱图",
  sdr: "SDR {value} dB",
  sdr_hint: "此片段相对真实声部的信号失真比，数值越大越接近",
  truth: "真实声部",
  stem_drums: "鼓",
  stem_bass: "贝斯",
  stem_other: "其他",
  stem_vocals: "人声",
  stem_guitar: "吉他",
  stem_piano: "钢琴",
  stem_original: "原声",
  stem_mixture: "混音",
  stem_codec: "编解码",
  stem_enhanced: "增强",
  stem_difference: "差异",
};

export const LANGUAGES = { en: EN, zh: ZH };
export const { currentLanguage, setLanguage, tr } = speaker(LANGUAGES);

/** A stem by its usual name where it has one; others by the name they came with. */
export function stemName(name) {
  return `stem_${name}` in EN ? tr(`stem_${name}`) : name;
}

/** Say the page's fixed words. */
export function sayFixed() {
  document.documentElement.lang = currentLanguage() === "zh" ? "zh-CN" : currentLanguage();
  for (const element of document.querySelectorAll("[data-text]")) element.textContent = tr(element.dataset.text);
}

/** A choice of languages; `again` draws what is not fixed. */
export function languageSwitch(select, again) {
  for (const [tag, texts] of Object.entries(LANGUAGES)) select.append(new Option(texts.language, tag));
  select.value = currentLanguage();
  select.addEventListener("change", () => {
    setLanguage(select.value);
    sayFixed();
    again();
  });
  sayFixed();
}
