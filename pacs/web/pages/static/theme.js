// Runs before the page is painted, so that the chosen theme does not flicker.
try { const chosen = localStorage.getItem("theme"); if (chosen) document.documentElement.dataset.theme = chosen; } catch { /* no storage: follow the system */ }
