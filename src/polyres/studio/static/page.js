// A page without a server: everything it plays and shows is in it.

import { Board } from "./board.js";
import { h } from "./dom.js";
import { languageSwitch, tr } from "./words.js";

function decoded(text) {
  return Uint8Array.from(atob(text), (character) => character.charCodeAt(0)).buffer;
}

async function open(song, place) {
  const board = new Board({ title: song.title, rate: song.results[0].rate_hz });
  place.append(board.element);
  for (const [number, result] of song.results.entries()) {
    const lanes = Object.keys(result.lanes);
    const views = Object.fromEntries(lanes.map((name) => [name, result.lanes[name].view]));
    const sdr = Object.fromEntries(lanes.map((name) => [name, result.lanes[name].sdr_db]));
    const audio = async (name) => decoded(result.lanes[name].audio);
    await board.add({ ...result, id: `${number}`, lanes, views, sdr, audio });
  }
  return board;
}

const page = JSON.parse(document.getElementById("data").textContent);
const opened = [];
let heard = null;
languageSwitch(document.getElementById("language"), () => { for (const board of opened) board.build(); });
document.addEventListener("keydown", (event) => heard?.key(event));
for (const song of page.songs) {
  const place = h("div");
  document.getElementById("songs").append(h("article.song", { "aria-label": song.title }, h("div.song-head", {}, h("h2", {}, song.title)), place));
  try {
    const board = await open(song, place);
    opened.push(board);
    heard ??= board;
    const listen = () => {
      if (heard !== board) heard.player.pause();
      heard = board;
    };
    board.element.addEventListener("pointerdown", listen, true);
    board.element.addEventListener("keydown", listen, true);
  } catch (error) {
    place.append(h("p", { role: "alert" }, tr("no_song", { reason: error.message })));
  }
}
