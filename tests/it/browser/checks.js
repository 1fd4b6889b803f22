// What holds for the page in every state, as a list of what does not. Evaluated in the page by the tests.
(() => {
  const wrong = [];
  const root = document.documentElement;
  if (root.scrollWidth > root.clientWidth) {
    const wide = [...document.querySelectorAll("body *")].filter((one) => one.getBoundingClientRect().right > root.clientWidth + 1);
    wrong.push(`scrolls sideways: ${root.scrollWidth} > ${root.clientWidth}: ${wide.slice(0, 3).map((one) => one.outerHTML.slice(0, 80))}`);
  }
  if (root.lang === "" || document.title === "") wrong.push("has no language or no title");
  for (const input of document.querySelectorAll("input")) {
    if (input.labels.length === 0) wrong.push(`${input.id} has no label`);
  }
  for (const drawing of document.querySelectorAll("details[open] svg")) {
    if (!drawing.ariaHidden && !drawing.getAttribute("aria-label")) wrong.push("a drawing has neither a description nor is it hidden");
  }

  // WCAG 2: the contrast of text with what lies under it is 4.5 to 1 at least.
  const canvas = document.createElement("canvas").getContext("2d", { willReadFrequently: true });
  const channels = (color) => {
    canvas.clearRect(0, 0, 1, 1);
    canvas.fillStyle = color;
    canvas.fillRect(0, 0, 1, 1);
    return [...canvas.getImageData(0, 0, 1, 1).data];
  };
  const luminance = ([red, green, blue]) => {
    const linear = (value) => (value / 255 <= 0.04045 ? value / 255 / 12.92 : ((value / 255 + 0.055) / 1.055) ** 2.4);
    return 0.2126 * linear(red) + 0.7152 * linear(green) + 0.0722 * linear(blue);
  };
  const under = (element) => {
    for (let one = element; one; one = one.parentElement) {
      const color = channels(getComputedStyle(one).backgroundColor);
      if (color[3] > 128) return color;
    }
    return [255, 255, 255, 255];
  };
  const seen = new Set();
  for (const element of document.querySelectorAll("body *")) {
    const says = [...element.childNodes].some((node) => node.nodeType === Node.TEXT_NODE && node.textContent.trim() !== "");
    if (!says || !element.checkVisibility() || element.closest("script, style, noscript")) continue;
    const [text, ground] = [luminance(channels(getComputedStyle(element).color)), luminance(under(element))];
    const contrast = (Math.max(text, ground) + 0.05) / (Math.min(text, ground) + 0.05);
    const name = `${element.tagName} .${element.className}`;
    if (contrast < 4.5 && !seen.has(name)) {
      seen.add(name);
      wrong.push(`${name} has a contrast of ${contrast.toFixed(2)}: ${element.textContent.slice(0, 30)}`);
    }
  }
  return wrong;
})()
