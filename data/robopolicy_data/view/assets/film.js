"use strict";
/* The cameras: each shows the newest frame that had been taken at the cursor's time. */

let films = [];
const pictures = new Map(); // address: Image, the least recently used first
const KEEP = 400; // pictures from the server; sheets are few

function showFilms() {
  films = (view.episode.films || []).map((film) => {
    const canvas = make("canvas");
    canvas.width = film.width;
    canvas.height = film.height;
    canvas.style.aspectRatio = `${film.width} / ${film.height}`;
    canvas.dataset.camera = film.camera;
    const age = make("span", "age");
    const words = film.kind === "depth" ? `${film.camera} · depth${film.range ? ` ${film.range}` : ""}` : film.camera;
    const box = make("div", "film", canvas, make("span", "label", words), age);
    return { ...film, canvas, age, box, context: canvas.getContext("2d"), shown: -1, number: view.episode.number };
  });
  byId("films").replaceChildren(...films.map((film) => film.box));
}

function drawFilms() {
  for (const film of films) drawFilm(film);
}

function drawFilm(film) {
  const i = indexAt(film.times, view.time);
  const age = view.time - film.times[i];
  const words = age > 0.0005 ? `${Math.round(age * 1000)} ms old` : "now";
  if (film.age.textContent !== words) film.age.textContent = words;
  if (i === film.shown) return;
  const picture = fetchPicture(addressOf(film, i), () => { if (films.includes(film)) drawFilm(film); });
  for (const ahead of film.sheets ? [film.per_sheet] : [1, 2, 3, 4, 5, 6, 7, 8]) {
    if (i + ahead < film.times.length) fetchPicture(addressOf(film, i + ahead));
  }
  if (!picture) return;
  film.shown = i;
  film.canvas.dataset.frame = i;
  if (!film.sheets) {
    film.context.drawImage(picture, 0, 0, film.width, film.height);
    return;
  }
  const place = i % film.per_sheet;
  const x = (place % film.columns) * film.stride[0], y = Math.floor(place / film.columns) * film.stride[1];
  film.context.drawImage(picture, x, y, film.width, film.height, 0, 0, film.width, film.height);
}

function addressOf(film, i) {
  return film.sheets ? film.sheets[Math.floor(i / film.per_sheet)] : film.src.replace("{frame}", i);
}

/* Return the picture if it is here; else ask for it, and call `then` when it has come. */
function fetchPicture(address, then) {
  let picture = pictures.get(address);
  if (picture) {
    pictures.delete(address);
  } else {
    picture = new Image();
    picture.src = address;
    for (const old of pictures.keys()) {
      if (pictures.size < KEEP) break;
      pictures.delete(old);
    }
  }
  pictures.set(address, picture);
  if (picture.complete && picture.naturalWidth) return picture;
  if (then) picture.addEventListener("load", then, { once: true });
  return null;
}
