"use strict";
(() => {
  const box = document.getElementById("search");
  if (box) {
    const query = document.getElementById("query"), group = document.getElementById("group");
    const hits = document.getElementById("hits"), nothing = document.getElementById("nothing");
    const groups = Array.from(document.querySelectorAll(".group"), (element) => ({
      element,
      examples: Array.from(element.querySelectorAll(".example"), (example) => ({
        example, text: example.textContent.toLowerCase(),
      })),
    }));
    const search = () => {
      const words = query.value.toLowerCase().split(/\s+/).filter(Boolean);
      let shown = 0, all = 0;
      for (const { element, examples } of groups) {
        const wanted = !group.value || group.value === element.dataset.group;
        let here = 0;
        for (const { example, text } of examples) {
          const hit = wanted && words.every((word) => text.includes(word));
          example.hidden = !hit;
          here += hit;
        }
        element.hidden = !here;
        const more = element.querySelector(".more");
        if (more) {
          // A hit must not hide behind a fold.
          more.open = words.length > 0;
          more.hidden = !Array.from(more.querySelectorAll(".example")).some((example) => !example.hidden);
        }
        shown += here;
        all += examples.length;
      }
      hits.textContent = words.length || group.value ? `${shown} of ${all}` : "";
      nothing.hidden = shown > 0;
    };
    query.addEventListener("input", search);
    group.addEventListener("change", search);
    box.hidden = false;
  }
  // Paper has nothing to click on: what is folded is unfolded while printing, apart from what would fill a book.
  let folded = [];
  addEventListener("beforeprint", () => {
    folded = Array.from(document.querySelectorAll("details:not([open]):not(.verdicts):not(.more):not(.long)"));
    for (const element of folded) element.open = true;
  });
  addEventListener("afterprint", () => {
    for (const element of folded) element.open = false;
  });
})();
