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

/** Buttons to choose a memory by, where there are several, over what `mount` draws of it.
 *
 * What `mount` returns is called at its end, and gives what the next one goes on from. */
function forEachMemory(id, mount) {
  const figure = document.getElementById(id);
  const buttons = add(figure, "div", "docmem-memories");
  buttons.setAttribute("role", "group");
  buttons.setAttribute("aria-label", "Memory");
  const place = add(figure, "div");
  let end = () => null;
  const choose = (chosen) => {
    const before = end();
    place.replaceChildren();
    end = mount(place, baked.memories[chosen], before);
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

forEachMemory("plane", (el, { plane }, before) => {
  const lm = live && loadLMInWorker(live.bundle, live.source);
  const model = new BakedPlane(plane, lm, before);
  const end = render({ model, el });
  return () => {
    end();
    lm?.then((worker) => worker.close());
    return model;
  };
});
mountTraining(document.getElementById("training"), baked.training);
for (const [id, mount] of Object.entries({ recall: mountRecall, attribution: mountAttribution })) {
  forEachMemory(id, (el, memory, before) => mount(el, memory, memory.plane.scene, before));
}
document.documentElement.dataset.ready = "true";
