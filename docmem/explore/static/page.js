// The page: reads what was baked, and puts a picture into each of its figures.

import { BakedPlane } from "./baked.js";
import { add } from "./draw.js";
import { loadLMInWorker } from "./lm_worker.js";
import { render } from "./plane.js";
import { mountAttribution, mountRecall } from "./recall.js";
import { mountTraining } from "./training.js";

const inside = document.getElementById("lm"); // the LM itself, in the larger file
const live = inside && JSON.parse(inside.textContent);
const baked = JSON.parse(document.getElementById("baked").textContent);

/** Buttons to choose a memory by, where there are several, over what `mount` draws of it. */
function forEachMemory(id, mount) {
  const figure = document.getElementById(id);
  const buttons = add(figure, "div", "docmem-memories");
  const place = add(figure, "div");
  let end = () => {};
  const choose = (chosen) => {
    end();
    place.replaceChildren();
    end = mount(place, baked.memories[chosen]) ?? (() => {});
    [...buttons.children].forEach((button, index) =>
      button.setAttribute("aria-pressed", String(index === chosen)),
    );
  };
  if (baked.memories.length > 1) {
    baked.memories.forEach(({ name }, index) =>
      add(buttons, "button", "", `${name} memory`).addEventListener("click", () => choose(index)),
    );
  }
  choose(0);
}

forEachMemory("plane", (el, { plane }) => {
  const lm = live && loadLMInWorker(live.bundle, live.source);
  const end = render({ model: new BakedPlane(plane, lm), el });
  return () => {
    end();
    lm?.then((worker) => worker.close());
  };
});
mountTraining(document.getElementById("training"), baked.training);
forEachMemory("recall", (el, memory) => mountRecall(el, memory, memory.plane.scene));
forEachMemory("attribution", (el, memory) => mountAttribution(el, memory, memory.plane.scene));
document.documentElement.dataset.ready = "true";
